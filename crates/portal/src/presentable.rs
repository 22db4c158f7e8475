//! Texts that strangers choose, made fit to be shown in a list, a page or a terminal.

/// The longest name of a device, in characters.
const LONGEST_NAME: usize = 100;

/// A text without control, direction and invisible characters, cut to `longest`; `None` when nothing is left.
pub(crate) fn presentable(text: &str, longest: usize) -> Option<String> {
    let is_harmless = |c: &char| {
        !c.is_control()
            && !matches!(*c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let text: String = text.chars().filter(is_harmless).collect();
    let text: String = text.trim().chars().take(longest).collect();
    (!text.is_empty()).then_some(text)
}

/// What a device calls itself.
pub(crate) fn device_name(name: &str) -> String {
    presentable(name, LONGEST_NAME).unwrap_or_else(|| "unnamed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_presentable() {
        assert_eq!(device_name("  web\u{7}-1\n "), "web-1");
        assert_eq!(device_name("\u{0}"), "unnamed");
        assert_eq!(device_name(&"x".repeat(1000)).len(), LONGEST_NAME);
    }

    #[test]
    fn a_name_cannot_turn_the_text_around_it() {
        assert_eq!(device_name(" lap\u{202e}top\u{7}\n"), "laptop");
        assert_eq!(device_name("\u{200b}"), "unnamed");
    }
}
