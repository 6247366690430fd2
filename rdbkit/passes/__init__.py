"""What runs once a record or once an element: the inner loops of the operations, compiled."""
