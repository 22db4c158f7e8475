//! One event as one JSON line.
//!
//! The keys are always present and always in this order: `time`, `severity`, `message`, `target`, `fields`,
//! `spans`. `message` is always a string. The encoder writes bytes by hand because the key order is part of
//! the format and because the cost of a line has to be bounded whatever somebody passes as a field: strings
//! are cut at [`MAX_VALUE`] bytes and nothing more is added after [`MAX_LINE`] bytes.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use tracing::Level;
use tracing::field::{Field, Visit};

/// Longest string value in bytes; the rest is replaced by an ellipsis.
pub const MAX_VALUE: usize = 8 * 1024;

/// Size in bytes after which an encoder drops further fields and spans of a line.
pub const MAX_LINE: usize = 32 * 1024;

/// The severity names of the log format; `TRACE` has no name of its own there and is written as `DEBUG`.
#[must_use]
pub fn severity(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// RFC 3339 in UTC with exactly nine fractional digits, so that lines sort as text.
#[must_use]
pub fn timestamp(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(time) => format!("{time:.9}"),
        // A clock outside year -9999..9999 is broken; the line still has to sort and parse.
        Err(_) => "1970-01-01T00:00:00.000000000Z".to_owned(),
    }
}

/// Assembles one complete line, newline included, from already encoded parts.
///
/// `fields` is the inside of a JSON object and `spans` yields complete JSON objects, outermost first.
pub fn assemble<'a>(
    time: SystemTime,
    level: Level,
    message: &str,
    target: &str,
    fields: &str,
    spans: impl Iterator<Item = &'a str>,
) -> String {
    let mut line = String::with_capacity(160 + message.len() + fields.len());
    line.push_str("{\"time\":\"");
    line.push_str(&timestamp(time));
    line.push_str("\",\"severity\":\"");
    line.push_str(severity(level));
    line.push_str("\",\"message\":");
    push_string(&mut line, message);
    line.push_str(",\"target\":");
    push_string(&mut line, target);
    line.push_str(",\"fields\":{");
    line.push_str(fields);
    line.push_str("},\"spans\":[");
    let mut first = true;
    for span in spans {
        if line.len() + span.len() > 2 * MAX_LINE {
            break;
        }
        if !first {
            line.push(',');
        }
        first = false;
        line.push_str(span);
    }
    line.push_str("]}\n");
    line
}

/// Appends `text` as a JSON string, cut at [`MAX_VALUE`] bytes.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let cut = floor_char_boundary(text, MAX_VALUE);
    for character in text[..cut].chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // RFC 8259 section 7 wants the C0 controls escaped; DEL and the C1 controls are legal but would
            // reach a terminal as they are.
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            plain => out.push(plain),
        }
    }
    if cut < text.len() {
        out.push('…');
    }
    out.push('"');
}

fn floor_char_boundary(text: &str, limit: usize) -> usize {
    if text.len() <= limit {
        return text.len();
    }
    (0..=limit).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Collects the fields of an event or a span as the inside of a JSON object, and the `message` apart.
#[derive(Debug, Default)]
pub struct FieldEncoder {
    /// The event's message; empty when it has none.
    pub message: String,
    /// The other fields: `"a":1,"b":"x"`.
    pub fields: String,
}

impl FieldEncoder {
    fn begin(&mut self, name: &str) -> bool {
        if self.fields.len() > MAX_LINE {
            return false;
        }
        if !self.fields.is_empty() {
            self.fields.push(',');
        }
        push_string(&mut self.fields, name.strip_prefix("r#").unwrap_or(name));
        self.fields.push(':');
        true
    }

    fn literal(&mut self, field: &Field, value: impl fmt::Display) {
        if field.name() == "message" {
            self.message = value.to_string();
        } else if self.begin(field.name()) {
            let _ = write!(self.fields, "{value}");
        }
    }

    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut bounded = Bounded::default();
        let _ = bounded.write_fmt(value);
        if field.name() == "message" {
            self.message = bounded.text;
        } else if self.begin(field.name()) {
            push_string(&mut self.fields, &bounded.text);
        }
    }
}

impl Visit for FieldEncoder {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.literal(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.literal(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.literal(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.text(field, format_args!("{value}"));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.text(field, format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.literal(field, value);
        } else {
            // JSON has neither NaN nor infinities.
            self.text(field, format_args!("{value}"));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source.filter(|_| text.len() < MAX_VALUE) {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.text(field, format_args!("{text}"));
    }
}

/// A string that stops growing just past [`MAX_VALUE`], so that a huge `Debug` output stops early instead of
/// filling memory.
#[derive(Default)]
struct Bounded {
    text: String,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = (MAX_VALUE + 4).saturating_sub(self.text.len());
        let cut = floor_char_boundary(part, room);
        self.text.push_str(&part[..cut]);
        if cut < part.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> serde_json::Value {
        serde_json::from_str(line).expect("a line is JSON")
    }

    #[test]
    fn strings_survive_a_round_trip() {
        for text in ["", "a\"b\\c", "line\nbreak\ttab\r", "\u{0}\u{1b}[31m\u{7f}\u{9b}", "höhle 隧道 🕳"]
        {
            let mut out = String::new();
            push_string(&mut out, text);
            assert_eq!(parse(&out), serde_json::Value::String(text.to_owned()));
            assert!(!out.chars().any(char::is_control), "{out:?}");
        }
    }

    #[test]
    fn long_strings_are_cut_on_a_character() {
        let mut out = String::new();
        push_string(&mut out, &"隧".repeat(MAX_VALUE));
        let value = parse(&out);
        let text = value.as_str().expect("string");
        assert!(text.len() <= MAX_VALUE + '…'.len_utf8());
        assert!(text.ends_with("隧…"));
    }

    #[test]
    fn timestamps_have_nine_digits_and_sort() {
        let zero = timestamp(SystemTime::UNIX_EPOCH);
        assert_eq!(zero, "1970-01-01T00:00:00.000000000Z");
        let later = SystemTime::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 5);
        assert_eq!(timestamp(later), "2023-11-14T22:13:20.000000005Z");
    }

    #[test]
    fn spans_past_the_budget_are_left_out_but_the_line_stays_json() {
        let span = format!("{{\"name\":\"{}\"}}", "x".repeat(MAX_LINE));
        let line = assemble(
            SystemTime::UNIX_EPOCH,
            Level::INFO,
            "m",
            "t",
            "",
            std::iter::repeat_n(span.as_str(), 10),
        );
        assert!(line.len() < 3 * MAX_LINE);
        assert_eq!(parse(&line)["spans"].as_array().map(Vec::len), Some(1));
    }
}
