"""What people start: the command line and the demonstration.  Each needs an extra of its own."""
