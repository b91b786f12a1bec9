"""How a teacher's reply is read: structures, marks, grouping and values. The entry is ``datagen.parse``."""
