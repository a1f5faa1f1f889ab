"""``auto_torchrun``: where this process stands among the machines, and torch's elastic agent for the ranks to start here."""
