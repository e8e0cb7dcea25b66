//! Which watermark may be borrowed now, and waiting until one is applied
