//! A panic is a log line too.
//!
//! The hook replaces the standard one, because its plain text would break every reader that expects JSON. It
//! bypasses `tracing`: the panic may have happened while an event was being recorded.

use std::backtrace::Backtrace;
use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::time::SystemTime;

use tracing::Level;

use crate::init::FLUSH_DEADLINE;
use crate::line;
use crate::sink::Sink;

/// Installs the hook; with `to_stderr` the line also goes to standard error, where a supervisor looks.
pub(crate) fn install(sink: Sink, to_stderr: bool) {
    std::panic::set_hook(Box::new(move |info| {
        let line = describe(info);
        if to_stderr {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        sink.submit(line);
        sink.flush(FLUSH_DEADLINE);
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let reason = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)");
    let mut fields = String::new();
    push_field(&mut fields, "thread", std::thread::current().name().unwrap_or("unnamed"));
    if let Some(location) = info.location() {
        push_field(&mut fields, "location", &location.to_string());
    }
    push_field(&mut fields, "backtrace", &Backtrace::force_capture().to_string());
    line::assemble(
        SystemTime::now(),
        Level::ERROR,
        &format!("panicked: {reason}"),
        "panic",
        &fields,
        std::iter::empty(),
    )
}

fn push_field(fields: &mut String, name: &str, value: &str) {
    if !fields.is_empty() {
        fields.push(',');
    }
    line::push_string(fields, name);
    fields.push(':');
    line::push_string(fields, value);
}
