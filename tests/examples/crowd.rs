//! How long a crowd of namespaces takes to make and to end: `cargo run --example crowd -- 1000`.

#![allow(clippy::print_stdout, reason = "a measurement is for reading")]

use std::time::Instant;

use nodemend_lab::{Crowd, Engine, Node, Options};

fn main() -> nodemend_lab::Result<()> {
    let count = std::env::args()
        .nth(1)
        .and_then(|count| count.parse().ok())
        .unwrap_or(1000);
    for processes in [false, true] {
        let node = Node::start(Options::on(Engine::StandIn))?;
        let begun = Instant::now();
        node.crowd(Crowd { count, processes })?;
        let made = begun.elapsed().as_secs_f32();
        node.stop();
        let ended = begun.elapsed().as_secs_f32() - made;
        println!("{count} namespaces, processes {processes}: made in {made:.1} s, gone in {ended:.1} s");
    }
    Ok(())
}
