"""``auto_torchrun``: finds the ranks of this machine, and starts them with torch's elastic agent."""
