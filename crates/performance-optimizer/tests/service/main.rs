//! The subtree as a user sees it, on a paused clock: the work of each service, and that each is
//! restarted alone.

mod batch;
mod house;
mod kill_matrix;
mod lazy;
mod random;
mod scheduler;
mod statistics;
