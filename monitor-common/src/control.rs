//! What is not an event: settings that the daemon gives the programs.
