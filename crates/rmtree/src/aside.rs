//! A tree set aside: its name is free at once, and what it was is not forgotten.
