//! What commands print: JSON for programs, tables of at most 80 columns for people.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;

/// Columns of a terminal.
const WIDTH: usize = 80;

/// Between two columns.
const GAP: &str = "  ";

/// Prints a value as indented JSON.
pub(super) fn json<T: Serialize>(value: &T) -> ExitCode {
    match serde_json::to_string_pretty(value) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("adit-portal: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A column: its head and what it shows of an item.
pub(super) struct Column {
    pub(super) head: &'static str,
    pub(super) show: fn(&Value) -> String,
}

/// Prints items as a table.
pub(super) fn table(items: &[Value], columns: &[Column]) {
    if items.is_empty() {
        println!("none");
        return;
    }
    for line in lay_out(items, columns) {
        println!("{line}");
    }
}

/// The lines of a table. Columns are as wide as they need; when that is too much, the widest
/// ones that are not ids give way.
fn lay_out(items: &[Value], columns: &[Column]) -> Vec<String> {
    let rows: Vec<Vec<String>> =
        std::iter::once(columns.iter().map(|column| column.head.to_owned()).collect())
            .chain(items.iter().map(|item| columns.iter().map(|column| (column.show)(item)).collect()))
            .collect();
    let mut widths: Vec<usize> = (0..columns.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let gaps = GAP.len() * columns.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > WIDTH {
        let widest = widths
            .iter_mut()
            .zip(columns)
            .filter(|(width, column)| column.head != "ID" && **width > 4)
            .max_by_key(|(width, _)| **width);
        match widest {
            Some((width, _)) => *width -= 1,
            None => break,
        }
    }
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| fit(cell, *width)).collect();
            cells.join(GAP).trim_end().to_owned()
        })
        .collect()
}

fn fit(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return format!("{text:width$}");
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// A field as text: strings bare, absent ones as `-`, booleans as yes and no.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        other => other.to_string(),
    }
}

/// A time in Unix milliseconds as people read it.
pub(super) fn time(value: &Value) -> String {
    value.as_i64().map_or_else(|| "-".to_owned(), crate::clock::rfc3339)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_fit_a_terminal_and_keep_ids_whole() {
        let columns = [
            Column { head: "ID", show: |item| text(&item["id"]) },
            Column { head: "NAME", show: |item| text(&item["name"]) },
            Column { head: "ONLINE", show: |item| text(&item["online"]) },
        ];
        let id = "0199aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee";
        let items = [
            serde_json::json!({ "id": id, "name": "x".repeat(200), "online": true }),
            serde_json::json!({ "id": id }),
        ];
        let lines = lay_out(&items, &columns);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:?}");
        assert!(lines[1].starts_with(id) && lines[1].contains('…') && lines[1].ends_with("yes"));
        assert!(lines[2].ends_with('-'));
    }

    #[test]
    fn nothing_that_a_peer_names_itself_can_move_the_cursor() {
        assert_eq!(text(&Value::String("a\u{1b}[2Jb".to_owned())), "a[2Jb");
    }
}
