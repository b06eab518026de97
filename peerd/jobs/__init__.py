"""The executor: jobs that peers order here, from their creation to the acknowledged report of their end."""
