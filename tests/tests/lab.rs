//! The lab itself: a node works, and nothing of it stays.

use nodemend_lab::{Engine, Node, Options};

#[test]
fn a_node_runs_pods_that_answer() {
    let node = Node::start(Options::on(Engine::Containerd)).unwrap();
    println!("node after {:?}", node.age());
    let pods = node.run_sandboxes(3).unwrap();
    println!("3 pods after {:?}", node.age());
    println!("{pods:#?} {:#?}", node.links().unwrap());
    assert!(node.pings(pods[0].ips[0]));
    assert!(node.pings_from(&pods[1], pods[2].ips[0]));
}
