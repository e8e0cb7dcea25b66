//! The row check, streaming and over whole tables, and the reconciler
