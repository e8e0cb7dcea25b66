//! The encoding of each MySQL type in a row image.

pub(crate) mod charset;
pub(crate) mod decimal;
pub(crate) mod json;
mod json_number;
pub(crate) mod temporal;
