"""OpenAI's own Python client, unmodified, against `swarm-node api`.

    python check.py BASE_URL EXPECTED_TEXT [--api-key KEY]

EXPECTED_TEXT is a file with the greedy continuation of PROMPT, 40 tokens long. Prints one line for each check that
passed; the first that fails ends it with its traceback. `tests/tests/openai_client.rs` runs it.
"""

import argparse
import asyncio
import base64
import json
import math
import struct

import openai

PROMPT = "Once upon a time, there was a brave fox named Luna."
MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Tell me a story about a fox."}]
TOKENS = 40
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def expect_error(kind, status, param, call):
    try:
        call()
    except kind as error:
        assert error.status_code == status, error
        assert error.param == param, (error.param, param)
        return error
    raise AssertionError(f"no {kind.__name__}")


@check
def models(client, _):
    listed = [model.id for model in client.models.list()]
    assert listed == ["demo"], listed
    assert client.models.retrieve("demo").id == "demo"
    expect_error(openai.NotFoundError, 404, "model", lambda: client.models.retrieve("gpt-4o"))


@check
def completion(client, expected):
    answer = client.completions.create(model="demo", prompt=PROMPT, max_tokens=TOKENS, temperature=0)
    assert answer.choices[0].text == expected
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == TOKENS
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0
    assert answer.swarm["route"][0]["blocks"].startswith("0..")
    chunks = client.completions.create(model="demo", prompt=PROMPT, max_tokens=TOKENS, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected


@check
def chat_and_stream(client, _):
    request = dict(model="demo", messages=MESSAGES, max_tokens=TOKENS, temperature=0)
    answer = client.chat.completions.create(**request)
    text = answer.choices[0].message.content
    assert text and answer.choices[0].message.role == "assistant"
    pieces, usage, finish = [], None, None
    stream = client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            finish = choice.finish_reason or finish
    assert "".join(pieces) == text, ("".join(pieces), text)
    assert (finish, usage.completion_tokens) == ("length", TOKENS)
    assert usage.total_tokens == usage.prompt_tokens + TOKENS


@check
def raw_headers(client, _):
    raw = client.chat.completions.with_raw_response.create(
        model="demo", messages=MESSAGES, max_tokens=3, extra_headers={"x-request-id": "mine-1"}
    )
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.parse().swarm["request_id"] == "mine-1"


@check
def n_and_seed(client, _):
    request = dict(model="demo", messages=MESSAGES, max_tokens=20, temperature=0.9, seed=7, n=3)
    one, other = (client.chat.completions.create(**request) for _ in range(2))
    texts = [[choice.message.content for choice in answer.choices] for answer in (one, other)]
    assert texts[0] == texts[1] and len(set(texts[0])) > 1, texts
    assert one.system_fingerprint == other.system_fingerprint


@check
def logprobs(client, _):
    request = dict(model="demo", messages=MESSAGES, max_tokens=10, temperature=0)
    answer = client.chat.completions.create(**request, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert "".join(token.token for token in content) == answer.choices[0].message.content
    assert all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in content)
    assert all(bytes(token.bytes).decode() == token.token for token in content)
    legacy = client.completions.create(model="demo", prompt=PROMPT, max_tokens=5, temperature=0, logprobs=2)
    assert len(legacy.choices[0].logprobs.token_logprobs) == 5


@check
def embeddings(client, _):
    # The client asks for base64 by itself.
    answer = client.embeddings.create(model="demo", input=[PROMPT, "One night, a big storm came."])
    assert [item.index for item in answer.data] == [0, 1]
    for item in answer.data:
        assert abs(math.sqrt(sum(value * value for value in item.embedding)) - 1) < 1e-4
    floats = client.embeddings.create(model="demo", input=PROMPT, encoding_format="float").data[0].embedding
    assert all(abs(one - other) < 1e-6 for one, other in zip(floats, answer.data[0].embedding, strict=True))
    packed = client.embeddings.create(model="demo", input=PROMPT, encoding_format="base64").data[0].embedding
    read = struct.unpack(f"<{len(floats)}f", base64.b64decode(packed))
    assert all(abs(one - other) < 1e-6 for one, other in zip(floats, read, strict=True))


@check
def errors(client, _):
    chat = client.chat.completions.create
    bad = openai.BadRequestError
    expect_error(bad, 400, "temperature", lambda: chat(model="demo", messages=MESSAGES, temperature=9))
    expect_error(bad, 400, "messages", lambda: chat(model="demo", messages=[]))
    expect_error(bad, 400, "logit_bias", lambda: chat(model="demo", messages=MESSAGES, logit_bias={"1": 5}))
    expect_error(openai.NotFoundError, 404, "model", lambda: chat(model="gpt-4o", messages=MESSAGES))
    long = [{"role": "user", "content": "fox " * 5000}]
    error = expect_error(bad, 400, "messages", lambda: chat(model="demo", messages=long))
    assert error.code == "context_length_exceeded"
    # Only where a key is asked for.
    if client.api_key != "none":
        wrong = client.with_options(api_key="wrong")
        expect_error(openai.AuthenticationError, 401, None, lambda: wrong.models.list())


@check
def stop_and_penalties(client, expected):
    word = expected.split()[5]
    request = dict(model="demo", prompt=PROMPT, max_tokens=TOKENS, temperature=0)
    stopped = client.completions.create(**request, stop=[word, "\n\n"])
    assert stopped.choices[0].text == expected[: expected.index(word)], stopped.choices[0].text
    assert stopped.choices[0].finish_reason == "stop"
    chunks = client.completions.create(**request, stop=word, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == stopped.choices[0].text
    penalised = client.completions.create(**request, presence_penalty=1.5, frequency_penalty=1.5)
    assert penalised.choices[0].text != expected


SCHEMA = {
    "type": "object",
    "properties": {"animal": {"enum": ["fox", "crow"]}, "brave": {"type": "boolean"}},
    "required": ["animal", "brave"],
    "additionalProperties": False,
}


@check
def json_of_a_schema(client, _):
    chat = client.chat.completions.create
    form = {"type": "json_schema", "json_schema": {"name": "animal", "schema": SCHEMA, "strict": True}}
    for temperature in (0, 1.5):
        request = dict(model="demo", messages=MESSAGES, max_tokens=200, temperature=temperature, seed=1)
        answer = chat(**request, response_format=form)
        animal = json.loads(answer.choices[0].message.content)
        assert animal["animal"] in ("fox", "crow") and isinstance(animal["brave"], bool), animal
        assert answer.choices[0].finish_reason == "stop"
    bad = {"type": "json_schema", "json_schema": {"name": "bad", "schema": {"type": "nonsense"}}}
    expect_error(openai.BadRequestError, 400, "response_format", lambda: chat(model="demo", messages=MESSAGES, response_format=bad))


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "feed",
            "description": "Feeds an animal.",
            "parameters": SCHEMA,
        },
    }
]


@check
def tools_that_must_be_called(client, _):
    chat = client.chat.completions.create
    request = dict(model="demo", messages=MESSAGES, tools=TOOLS, max_tokens=200, temperature=0)
    for choice in ("required", {"type": "function", "function": {"name": "feed"}}):
        answer = chat(**request, tool_choice=choice)
        call = answer.choices[0].message.tool_calls[0]
        assert (call.function.name, answer.choices[0].finish_reason) == ("feed", "tool_calls"), answer
        assert json.loads(call.function.arguments)["animal"] in ("fox", "crow")
    name, arguments, finish = "", "", None
    for chunk in chat(**request, tool_choice="required", stream=True):
        for piece in chunk.choices[0].delta.tool_calls or []:
            assert piece.index == 0
            name += piece.function.name or ""
            arguments += piece.function.arguments or ""
        finish = chunk.choices[0].finish_reason or finish
    assert (name, json.loads(arguments), finish) == ("feed", json.loads(call.function.arguments), "tool_calls")
    # What a tool has said is read with the next turn.
    history = MESSAGES + [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "It is fed."}]
    assert chat(model="demo", messages=history, tools=TOOLS, max_tokens=5).choices[0].message.content is not None
    text = chat(**{**request, "max_tokens": 10}, tool_choice="none")
    assert text.choices[0].message.tool_calls is None
    wrong = {"type": "function", "function": {"name": "fly"}}
    expect_error(openai.BadRequestError, 400, "tool_choice", lambda: chat(**request, tool_choice=wrong))


@check
def timeout(client, _):
    hasty = client.with_options(timeout=0.05, max_retries=0)
    try:
        hasty.completions.create(model="demo", prompt=PROMPT, max_tokens=1900)
    except openai.APITimeoutError:
        return
    raise AssertionError("1900 tokens within 50 ms")


@check
def many_at_once(client, expected):
    async def all_of_them():
        many = openai.AsyncOpenAI(base_url=str(client.base_url), api_key=client.api_key)
        async with many:
            request = dict(model="demo", prompt=PROMPT, max_tokens=TOKENS, temperature=0)
            return await asyncio.gather(*(many.completions.create(**request) for _ in range(16)))

    assert all(answer.choices[0].text == expected for answer in asyncio.run(all_of_them()))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("base_url")
    parser.add_argument("expected")
    parser.add_argument("--api-key", default="none")
    arguments = parser.parse_args()
    with open(arguments.expected, encoding="utf-8") as file:
        expected = file.read()
    client = openai.OpenAI(base_url=arguments.base_url, api_key=arguments.api_key)
    print(f"openai {openai.__version__}")
    for function in CHECKS:
        function(client, expected)
        print(f"ok {function.__name__}")
    print(f"all {len(CHECKS)} checks passed")


if __name__ == "__main__":
    main()
