//! The program on the Qdrant host: backup, restore, verify, and what a person types.
