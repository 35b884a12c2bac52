//! The Qdrant stand-in, and the way to use a real server instead.
