"""Who belongs: member records, invites, revocation, and the spread of signed documents between members."""
