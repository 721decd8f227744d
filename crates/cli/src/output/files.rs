//! `--files-with-matches`: the paths alone.

use super::style::Styles;
use super::{PrintError, Printer};
use crate::console::Console;
use astscope_protocol::messages::Item;

/// Prints each file with a match once.
#[derive(Debug)]
pub(crate) struct FileNamePrinter {
    styles: Styles,
}

impl FileNamePrinter {
    pub(crate) fn new(color: bool) -> Self {
        Self { styles: Styles::new(color) }
    }
}

impl Printer for FileNamePrinter {
    fn item(&mut self, item: &Item, console: &mut Console<'_>) -> Result<(), PrintError> {
        writeln!(console.out, "{}", self.styles.path.paint(&item.file))?;
        Ok(())
    }
}
