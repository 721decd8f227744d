//! The shapes of five systems that were written elsewhere, as supervision trees of ours.
//!
//! Each stands in one table. What follows from a table (order, counts, who is restarted with whom,
//! how much is too much, how long a stop takes) is checked for every node of every tree against a
//! model that knows only the table; what a system's own documents say is checked in their words.
//! Then come the promises that plain OTP doesn't keep, each with what keeps it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may its support")]

mod stage;

mod seeds {
    #[macro_use]
    mod shape;
    mod table;

    mod cordial_cantina;
    mod elixirscope;
    mod erlmcp;
    mod exesdb;
    mod macula;
}
