"""What votes say: agreement, annotators, aggregation. Arrays in, figures out; nothing here reads the lake."""
