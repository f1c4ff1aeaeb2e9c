"""cogkit.layers: functions with parameters of their own."""
