//! Colours, as escape sequences of ast-grep's exact spelling, so that coloured output can be
//! compared with its byte for byte.

use std::fmt::{self, Display};

/// Parameters of an SGR escape sequence; empty for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Style(pub(crate) &'static str);

impl Style {
    pub(crate) const PLAIN: Self = Self("");

    /// The text between the sequences that turn the style on and off.
    pub(crate) fn paint<T: Display>(self, text: T) -> Painted<T> {
        Painted { style: self, text }
    }
}

/// A text with its style.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Painted<T> {
    style: Style,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.style == Style::PLAIN {
            return self.text.fmt(formatter);
        }
        write!(formatter, "\x1b[{}m{}\x1b[0m", self.style.0, self.text)
    }
}

/// The roles that have a colour.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Styles {
    pub(crate) path: Style,
    pub(crate) matched: Style,
    pub(crate) line_number: Style,
    pub(crate) insert: Style,
    pub(crate) insert_emphasis: Style,
    pub(crate) delete: Style,
    pub(crate) delete_emphasis: Style,
    pub(crate) hunk: Style,
    pub(crate) selected_fix: Style,
    pub(crate) error: Style,
    pub(crate) warning: Style,
    pub(crate) info: Style,
    pub(crate) hint: Style,
    pub(crate) message: Style,
    pub(crate) note: Style,
}

impl Styles {
    pub(crate) fn new(color: bool) -> Self {
        if !color {
            return Self::default();
        }
        Self {
            path: Style("3;36"),
            matched: Style("1;31"),
            line_number: Style("2"),
            insert: Style("38;5;35"),
            insert_emphasis: Style("1;48;5;158;38;5;35"),
            delete: Style("38;5;161"),
            delete_emphasis: Style("1;48;5;225;38;5;161"),
            hunk: Style("34"),
            selected_fix: Style("1;4"),
            error: Style("1;31"),
            warning: Style("1;33"),
            info: Style("1"),
            hint: Style("1;2"),
            message: Style("1"),
            note: Style("3"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_nothing_is_added() {
        assert_eq!(Styles::new(false).matched.paint("a").to_string(), "a");
        assert_eq!(Styles::new(true).matched.paint("a").to_string(), "\x1b[1;31ma\x1b[0m");
    }
}
