//! The log's lines about itself. They are made here, because nothing can be logged while a line is being written.

use jiff::Timestamp;
use serde_json::json;

use crate::config::log::Format;

/// Lines were dropped.
pub(super) fn dropped(format: Format, lines: u64) -> Vec<u8> {
    line(format, "ERROR", "stderr took no more of the log for a while: so many lines are left out", lines)
}

/// Lines of a library were left out.
pub(super) fn left_out(format: Format, target: &str, lines: u64) -> Vec<u8> {
    line(format, "WARN", &format!("so many more lines of {target} like the next one are left out"), lines)
}

fn line(format: Format, level: &str, message: &str, lines: u64) -> Vec<u8> {
    let (time, target) = (format!("{:.6}", Timestamp::now()), env!("CARGO_CRATE_NAME"));
    let line = match format {
        Format::Text => format!("{time} {level:>5} {target}::log: {message} lines={lines}\n"),
        Format::Json => {
            let object = json!({
                "timestamp": time, "level": level, "message": message, "lines": lines, "target": format!("{target}::log"),
            });
            format!("{object}\n")
        }
    };
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_form_of_the_others() {
        let text = String::from_utf8(dropped(Format::Text, 7)).unwrap();
        assert!(
            text.contains(" ERROR jobworker::log: stderr took") && text.ends_with(" lines=7\n"),
            "{text}"
        );
        let json: serde_json::Value =
            serde_json::from_slice(&left_out(Format::Json, "h2::proto", 3)).unwrap();
        assert_eq!((&json["level"], &json["lines"]), (&"WARN".into(), &3.into()));
        assert!(json["message"].as_str().unwrap().contains("h2::proto"), "{json}");
    }
}
