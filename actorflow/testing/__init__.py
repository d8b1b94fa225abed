"""What tests of durable code, and of stores, are built from. Import what you need from the modules."""
