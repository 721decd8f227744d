//! Opaque identities: of a file within a repository, and of a file's bytes anywhere.

use std::fmt;
use std::num::NonZeroU32;

/// A file within one repository: small, stable while the file is known, never reused by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(NonZeroU32);

const _: () = assert!(size_of::<Option<FileId>>() == 4);

impl FileId {
    /// The id with this 1-based index, or `None` for 0.
    pub fn from_index(index: u32) -> Option<Self> {
        NonZeroU32::new(index).map(Self)
    }

    /// The 1-based index.
    pub fn index(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileId({})", self.0)
    }
}

/// The blake3 hash of a file's bytes: equal ids mean equal bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId([u8; 32]);

impl ContentId {
    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The hash itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ids_print_as_64_hex_digits_of_blake3() {
        // The hash of the empty input, from the BLAKE3 paper's test vectors.
        assert_eq!(
            ContentId::of(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }

    #[test]
    fn file_ids_start_at_one() {
        assert_eq!(FileId::from_index(0), None);
        assert_eq!(FileId::from_index(7).map(FileId::index), Some(7));
    }
}
