//! The applications that speak to the gateways, and the checker that judges what they saw.

pub(crate) mod checker;
mod client;
mod entity;
pub(crate) mod table;

pub(crate) use client::{Clients, Seen};
pub(crate) use entity::Entity;
