//! The backfill loop: history in chunks, each at a borrowed watermark
