//! Chat templates use what Hugging Face's Jinja has, in the ways that the public templates of the families do. These templates are
//! our own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{ChatMessage, ChatTemplate, Checkpoint, ModelSpec};

fn template(source: &str) -> ChatTemplate {
    let directory = tempfile::tempdir().unwrap();
    SyntheticSpec::default().write(directory.path()).unwrap();
    let config = json!({
        "chat_template": source,
        "bos_token": {"content": "<s>"},
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": null,
    });
    std::fs::write(directory.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let _ = std::fs::remove_file(directory.path().join("chat_template.jinja"));
    let checkpoint = Checkpoint::open(&ModelSpec::Directory(directory.path().into())).unwrap();
    checkpoint.chat_template().unwrap().unwrap()
}

fn conversation() -> [ChatMessage; 4] {
    let answer = "<think>\nhm\n</think>\n\nYes?  ";
    [("system", "Be é <kind> & \"brief\"."), ("user", " Hi "), ("assistant", answer), ("user", "Go")]
        .map(|(role, text)| ChatMessage::new(role, text))
}

#[track_caller]
fn gives(source: &str, expected: &str) {
    assert_eq!(template(source).render(&conversation(), true).unwrap(), expected, "{source}");
}

#[test]
fn loops_and_namespaces() {
    gives(
        "{%- set ns = namespace(last=-1, seen=false) %}{% for message in messages[::-1] %}\
         {%- set index = (messages|length - 1) - loop.index0 %}\
         {%- if not ns.seen and message.role == 'user' %}{% set ns.seen = true %}{% set ns.last = index %}{% endif %}\
         {%- endfor %}{{ ns.last }}",
        "3",
    );
    gives(
        "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined else 'none' }}>{{ m['role'] }}\
         {{- ' ' if not loop.last }}{% endfor %}",
        "none>system system>user user>assistant assistant>user",
    );
    gives(
        "{% for m in messages %}{% if loop.index0 == 2 %}{% break %}{% endif %}{{ loop.nextitem.role }},{% endfor %}",
        "user,assistant,",
    );
    gives(
        "{% for m in messages if m.role != 'system' %}{% if m.content == 'Go' %}\
         {% continue %}{% endif %}{{ loop.index }}{% endfor %}",
        "12",
    );
    gives(
        "{% for m in messages[1:] %}{{ (m.role == 'user') == (loop.index0 % 2 == 0) }} {% endfor %}",
        "True True True ",
    );
    gives("{{ messages[-1].content }}{{ messages[0]['content'][:2] }}{{ (messages | last).role }}", "GoBeuser");
    gives("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "2");
    gives("{{ messages | map(attribute='role') | join('/') }}", "system/user/assistant/user");
}

#[test]
fn methods_of_texts() {
    gives(
        "{{ messages[1].content.strip() }}|{{ messages[1].content | trim }}|{{ messages[1].content.lstrip() }}",
        "Hi|Hi|Hi ",
    );
    gives(
        "{% set c = messages[2].content %}{{ c.split('</think>')[-1].lstrip('\\n') }}\
         |{{ c.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}",
        "Yes?  |hm",
    );
    gives("{{ messages[2].content.startswith('<think>') and not messages[2].content.endswith('</think>') }}", "True");
    gives(
        "{{ '</think>' in messages[2].content }} {{ 'a' ~ 1 ~ 'b' }} {{ 'x' + 'y' }} \
         {{ 'AB'.lower() }} {{ 'ab' | upper | replace('A', 'c') }}",
        "True a1b xy ab cB",
    );
    gives(
        "{{ messages[0].content is string }} {{ messages is iterable }} \
         {{ messages is mapping }} {{ messages[0] is mapping }}",
        "True True False True",
    );
    gives(
        "{{ 'a-b'.partition('-') | length if false else 'a-b'.replace('-', '+') }} \
         {{ '%s!' | format('hey') }} {{ 'ab'.title() }}",
        "a+b hey! Ab",
    );
}

#[test]
fn what_is_not_given_is_none_or_undefined() {
    gives(
        "{{ tools is none }} {{ tools is not none }} {{ documents is none }} {{ enable_thinking is defined }}",
        "True False True False",
    );
    gives(
        "{% if tools %}t{% elif enable_thinking is defined and enable_thinking is false %}f{% else %}e{% endif %}",
        "e",
    );
    gives(
        "{{ messages[2].tool_calls is defined }} {{ messages[2].reasoning_content is string }} \
         {{ messages[2].get('x', 'y') }}",
        "False False y",
    );
    gives(
        "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}{{ date_string }}",
        "26 Jul 2024",
    );
    gives(
        "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}{{ builtin_tools | default('none') }}",
        "<s></s><pad>none",
    );
}

#[test]
fn json_is_pythons() {
    gives("{{ messages[0] | tojson }}", r#"{"role": "system", "content": "Be é <kind> & \"brief\"."}"#);
    gives("{{ messages[1] | tojson(ensure_ascii=False) }}", r#"{"role": "user", "content": " Hi "}"#);
    gives("{{ [1, 'a'] | tojson(indent=2) }}", "[\n  1,\n  \"a\"\n]");
    gives("{{ {'a': [1, none]} | tojson(separators=(',', ':')) }}", r#"{"a":[1,null]}"#);
}

#[test]
fn macros_blocks_and_dates() {
    gives(
        "{% macro turn(m) %}[{{ m.role }}]{% endmacro %}{{ turn(messages[0]) }}{{ turn(messages[1]) }}",
        "[system][user]",
    );
    gives(
        "{% for m in messages %}\n{% if m.role == 'assistant' %}\n{% generation %}\n\
         {{ m.role }}\n{%- endgeneration %}\n{% endif %}\n{% endfor %}",
        "assistant",
    );
    gives("    {% if true %}\n    x\n    {% endif %}\n", "    x\n");
    let year = template("{{ strftime_now('%Y') }}").render(&conversation(), false).unwrap();
    assert!(year.len() == 4 && year.parse::<u32>().unwrap() > 2020, "{year}");
    let day = template("{{ strftime_now('%d %b %Y') }}{{ strftime_now('%Y-%m-%d') }}")
        .render(&conversation(), false)
        .unwrap();
    assert_eq!(day.len(), 21, "{day}");
}

#[test]
fn a_template_that_refuses_is_heard() {
    let refuses = template("{{ raise_exception('Roles must alternate: ' + messages[0].role) }}");
    let error = refuses.render(&conversation(), true).unwrap_err().to_string();
    assert!(error.contains("Roles must alternate: system"), "{error}");
}
