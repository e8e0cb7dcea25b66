//! The write switch, native writes and the switch back, checked by exploring everything that can happen to one key.
//!
//! The decisions are the product's own functions, on the product's types. Only the world around them is the model's: a
//! small MySQL, log and Cassandra, two gateways, a controller, and the order in which things happen.
//!
//! | decision | function | asked by |
//! |---|---|---|
//! | what a native writer does next, its guard, its record and its mutations | `cutover::guard` | `gateway`, `controller` |
//! | whether a gateway may act | `cutover::lease` | `gateway` |
//! | the steps of a switch, who may write, read and publish, floors | `cutover::switch` | `controller`, `gateway`, `stores` |
//! | which native records MySQL needs | `cutover::reverse` | `stores` |
//! | what becomes of a batch and of a guard that names it | `cutover::batch` | `batches` |
//! | whether a row is right, and what repairs it | `cutover::check` | `check` |
//! | a captured row's version and mutations | `mint::Minter`, `TablePlan` | `stores` |
//!
//! A rule that lies within such a function is broken at its border: its input or its output is altered.

mod action;
mod batch_actors;
mod batches;
mod bridge;
mod cases;
mod check;
mod controller;
mod explore;
mod gateway;
mod record;
mod rules;
mod scripts;
mod state;
mod stores;
mod world;
