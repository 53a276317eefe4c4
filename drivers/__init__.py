"""Drivers of instruments (VISA, serial, Modbus), and the bench that composes them into a device."""
