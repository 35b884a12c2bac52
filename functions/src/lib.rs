//! The Lambdas.
