//! `instrumentation_mapper`: finds the points of files that are parsed already.

use crate::instrumentation::{MapConfig, Point, points_until};
use astscope_supervision::{Ctx, Exit, Init, Mailbox, Reply, Service};
use astscope_syntax::ParsedFile;
use std::sync::Arc;

/// A file whose points are wanted. It is answered with those, or with the words of a panic.
pub(super) struct Mapping {
    pub(super) file: Arc<ParsedFile>,
    pub(super) config: MapConfig,
    pub(super) reply: Reply<Result<Vec<Point>, Arc<str>>>,
}

/// Maps one file after the other: it takes milliseconds, and the cores are wanted for queries.
#[derive(Debug)]
pub(super) struct InstrumentationMapper;

impl Service for InstrumentationMapper {
    type Args = ();
    type Message = Mapping;

    async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self))
    }

    async fn run(self, mut mailbox: Mailbox<Mapping>, ctx: Ctx) -> Result<(), Exit> {
        while let Some(Mapping { file, config, mut reply }) = mailbox.recv().await {
            let mapped = tokio::select! {
                biased;
                // The work ends with its future.
                () = reply.abandoned() => continue,
                mapped = ctx.blocking(None, move |checkpoint| {
                    points_until(&file, &config, &mut || checkpoint.check().is_err())
                }) => mapped,
            };
            match mapped {
                Ok(Some(points)) => reply.send(Ok(points)),
                Err(Exit::Panicked(text)) => reply.send(Err(text)),
                // It is being stopped: the caller is told by what becomes of his reply.
                Ok(None) | Err(_) => {}
            }
        }
        Ok(())
    }
}
