//! What each part of the system does, one step at a time.
//!
//! Minting, mapping, folding, equality, repair, the choice of a watermark, what covers a position,
//! what is applied and the verdict of a check are the product's own functions. What the loops do
//! around them (what is asked before what) is written here.

pub(crate) mod apply;
pub(crate) mod capture;
pub(crate) mod check;
pub(crate) mod copy;
pub(crate) mod gateway;
pub(crate) mod mysql;
pub(crate) mod retry;
