//! An output file that a batch goes on with.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The prompts that have their texts.
#[derive(Debug, Default)]
pub(super) struct Done(HashSet<String>);

impl Done {
    /// Whether the prompt of that id has its text.
    pub(super) fn has(&self, key: &Value) -> bool {
        self.0.contains(&key.to_string())
    }
}

/// Opens the output, made if it is not there: what it has, and where further lines go. A last line that was cut off is
/// taken away. Nobody else can write to it meanwhile.
///
/// # Errors
/// If the file is no batch's output, or is in use.
pub(super) fn open(path: &Path) -> Result<(Done, Box<dyn Write + Send>)> {
    let place = || format!("the output {}", path.display());
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = file.with_context(|| format!("cannot open {}", place()))?;
    if file.try_lock().is_err() {
        bail!("another batch is writing to {}; wait for it, or name another file", path.display());
    }
    let (done, whole) = read(&file).with_context(|| format!("cannot go on with {}", place()))?;
    file.set_len(whole).and_then(|()| file.seek(SeekFrom::End(0))).with_context(place)?;
    Ok((done, Box::new(file)))
}

/// The prompts that have texts, and the bytes of all lines that are whole.
fn read(file: &File) -> Result<(Done, u64)> {
    let mut input = BufReader::new(file);
    let (mut done, mut whole) = (Done::default(), 0);
    for number in 1_u64.. {
        let mut line = Vec::new();
        let bytes = input.read_until(b'\n', &mut line)?;
        if bytes == 0 || !line.ends_with(b"\n") {
            break;
        }
        let Ok(Value::Object(told)) = serde_json::from_slice(&line) else {
            bail!("its line {number} was not written by a batch; name another file, or move this one away");
        };
        if let (Some(id), Some(_)) = (told.get("id"), told.get("text")) {
            done.0.insert(id.to_string());
        }
        whole += bytes as u64;
    }
    Ok((done, whole))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_kept_failures_tried_again_and_a_cut_line_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let whole = "{\"id\":1,\"text\":\"a\"}\n{\"id\":\"x\",\"error\":\"no\"}\n";
        std::fs::write(&path, format!("{whole}{{\"id\":3,\"te")).unwrap();
        let (done, mut output) = open(&path).unwrap();
        assert_eq!([json!(1), json!("x"), json!(3), json!("1")].map(|key| done.has(&key)), [true, false, false, false]);
        assert!(open(&path).is_err(), "it is in use");
        writeln!(output, "{{\"id\":3,\"text\":\"c\"}}").unwrap();
        drop(output);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{whole}{{\"id\":3,\"text\":\"c\"}}\n"));
        assert!(open(&path).unwrap().0.has(&json!(3)));
    }

    #[test]
    fn somebody_elses_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("diary.txt");
        std::fs::write(&path, "Dear diary,\nnothing today").unwrap();
        assert!(open(&path).err().unwrap().chain().any(|cause| cause.to_string().contains("line 1")));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "Dear diary,\nnothing today");
    }
}
