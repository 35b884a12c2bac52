//! A suite that every implementation of the port has to pass.
