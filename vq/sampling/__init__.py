"""How tokens are drawn: functions."""
