// The compiler wants a file of assembly where a function has no body, see raftNode.
