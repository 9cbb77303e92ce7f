//! Columns, and figures as people read them.

use serde_json::Value;

/// Rows under their headings, each column as wide as its widest cell. Everything but the first column is to the right.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (index, (cell, width)) in cells.zip(&widths).enumerate() {
            match index {
                0 => line.push_str(&format!("{cell:<width$}")),
                _ => line.push_str(&format!("  {cell:>width$}")),
            }
        }
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&mut headings.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Text as it came from the other end, without what a terminal would take for a command.
pub fn plain(value: &Value) -> String {
    let text = value.as_str().unwrap_or("-");
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

pub fn number(value: &Value) -> String {
    value
        .as_u64()
        .map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// `1.2 k`, `35`.
pub fn rate(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(rate) if rate >= 10_000.0 => format!("{:.1} k", rate / 1000.0),
        Some(rate) if rate >= 100.0 => format!("{rate:.0}"),
        Some(rate) => format!("{rate:.1}"),
    }
}

/// A share of one, in percent.
pub fn percent(value: &Value) -> String {
    value
        .as_f64()
        .map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

/// Seconds, in a unit that leaves few zeros.
pub fn seconds(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

pub fn bytes(value: &Value) -> String {
    let Some(bytes) = value.as_f64() else {
        return "-".to_owned();
    };
    for (size, unit) in [(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1024.0, "KiB")] {
        if bytes >= size {
            return format!("{:.1} {unit}", bytes / size);
        }
    }
    format!("{bytes:.0} B")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let rows = vec![
            vec!["a".to_owned(), "10".to_owned()],
            vec!["long".to_owned(), "1".to_owned()],
        ];
        assert_eq!(table(&["x", "n"], &rows), "x      n\na     10\nlong   1\n");
    }

    #[test]
    fn figures_have_their_unit() {
        assert_eq!(seconds(&json!(0.00005)), "50 µs");
        assert_eq!(seconds(&json!(0.0123)), "12.3 ms");
        assert_eq!(seconds(&Value::Null), "-");
        assert_eq!(bytes(&json!(1536)), "1.5 KiB");
        assert_eq!(percent(&json!(0.5)), "50.0 %");
        assert_eq!(rate(&json!(12345.0)), "12.3 k");
        assert_eq!(plain(&json!("a\u{1b}[2J")), "a?[2J");
    }
}
