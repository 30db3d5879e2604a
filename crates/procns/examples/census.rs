//! Takes a census of this host and prints it with the time that it took: `cargo run --release --example census`.
#![allow(clippy::print_stdout, clippy::use_debug)]

use std::time::Instant;

use nodemend_hostfs::Host;
use nodemend_procns::Census;

fn main() -> Result<(), nodemend_procns::Error> {
    let start = Instant::now();
    let census = Census::take(&Host::local())?;
    let took = start.elapsed();
    for netns in &census.namespaces {
        println!("{}", netns.id);
        for holder in &netns.holders {
            println!("    {holder:?}");
        }
    }
    for reason in &census.unread {
        println!("unread: {reason}");
    }
    println!(
        "{} processes, {} network namespaces, {took:?}",
        census.processes.len(),
        census.namespaces.len()
    );
    Ok(())
}
