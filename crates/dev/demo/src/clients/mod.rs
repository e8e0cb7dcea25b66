//! The applications that use the gateways, and the checker that judges their journals.

pub(crate) mod checker;
mod client;
mod entity;
pub(crate) mod table;

pub(crate) use client::{Clients, Seen};
pub(crate) use entity::Entity;
