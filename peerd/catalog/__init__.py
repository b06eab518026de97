"""What this peer offers to others: services, declared by its owner, listed, searched across peers, digested."""
