//! Step Functions: a strict reader of the language, a machine that runs one execution, and the service around them.

pub mod asl;
pub mod machine;
