"""The equations of neurons as operations that any code generator can write down."""
