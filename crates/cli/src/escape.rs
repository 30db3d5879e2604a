//! Bytes from hostile places, made safe for a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// The text with every control character written as an escape, so that a name cannot move the cursor, end the line
/// or colour the screen. Bidirectional overrides, which reorder what a reader sees, are escaped as well.
///
/// ```
/// assert_eq!(nodemend_cli::escaped("10.0.0.1\n\u{1b}[2J"), "10.0.0.1\\n\\u{1b}[2J");
/// ```
pub fn escaped(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.chars().any(harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if harmful(c) {
            let _ = write!(safe, "{}", c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}
