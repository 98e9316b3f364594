"""What holds only while somebody lives: leases, their keepers, locks, and being registered."""
