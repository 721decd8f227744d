//! What goes through the pipes of a process: the length of a message as four bytes, the lowest
//! first, then the message.
//!
//! A length is believed only up to a bound, and memory is taken for what has come, not for what
//! was announced.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Why no frame was read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The other end announced more than it may send.
    #[error("it announced a message of {n} bytes, more than the {max} that it may have")]
    TooLarge { n: u32, max: u32 },
    /// The other end is gone, as a rule.
    #[error("it closed its pipes")]
    Io(#[from] io::Error),
}

/// Writes a frame. Its length must have been checked.
///
/// # Cancel safety
/// None: half a frame may have been written.
pub(super) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    message: &[u8],
) -> Result<(), FrameError> {
    let n = u32::try_from(message.len()).map_err(io::Error::other)?;
    to.write_all(&n.to_le_bytes()).await?;
    to.write_all(message).await?;
    to.flush().await?;
    Ok(())
}

/// Reads a frame.
///
/// # Cancel safety
/// None: half a frame may have been read.
pub(super) async fn read(
    from: &mut (impl AsyncRead + Unpin),
    max: u32,
) -> Result<Vec<u8>, FrameError> {
    let n = from.read_u32_le().await?;
    if n > max {
        return Err(FrameError::TooLarge { n, max });
    }
    let mut message = Vec::new();
    let n_read = from.take(n.into()).read_to_end(&mut message).await?;
    if n_read as u64 != u64::from(n) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: &[u8], max: u32) -> Result<Vec<u8>, FrameError> {
        read(&mut &bytes[..], max).await
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        for message in [Vec::new(), vec![1], vec![7; 70_000]] {
            let mut bytes = Vec::new();
            write(&mut bytes, &message).await.unwrap();
            assert_eq!(bytes.len(), 4 + message.len());
            assert_eq!(read_all(&bytes, 70_000).await.unwrap(), message);
        }
    }

    #[tokio::test]
    async fn a_length_over_the_bound_is_refused() {
        let error = read_all(&[4, 0, 0, 0, 1, 2, 3, 4], 3).await.unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { n: 4, max: 3 }));
    }

    #[tokio::test]
    async fn half_a_frame_is_an_error() {
        for bytes in [&b""[..], &[1], &[2, 0, 0, 0, 9]] {
            assert!(matches!(read_all(bytes, 100).await, Err(FrameError::Io(_))));
        }
    }
}
