"""What scans say of hosts and ports, kept once, and asked."""
