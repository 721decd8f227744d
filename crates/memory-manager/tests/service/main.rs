//! The subtree as a user sees it, on a paused clock: the work of each service, and who is
//! restarted with whom.

mod caches;
mod cleaner;
mod house;
mod kill_matrix;
mod monitor;
mod pressure;
mod random;
