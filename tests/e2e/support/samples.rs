//! Tables and mappings that several tests use. `{db}` is the database.

/// A table of numbers.
pub(crate) const T: &str = "CREATE TABLE t (id INT PRIMARY KEY, v INT)";

/// The same, with a text column.
pub(crate) const T_WITH_TEXT: &str = "CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL, s VARCHAR(40))";

/// `t` with a target of the same shape.
pub(crate) const T_MAPPING: &str =
    "[[table]]\nsource = \"{db}.t\"\n[[table.target]]\ntable = \"t\"\npartition_key = [\"id\"]\n";

/// The entity `order` of the gateway.
pub(crate) const ORDERS: &str = "CREATE TABLE orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, customer INT NOT NULL, note VARCHAR(40), \
     amount DECIMAL(12,2) NOT NULL DEFAULT 1.50, placed DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), \
     legacy INT)";

/// `orders` by its key and by customer.
pub(crate) const ORDERS_MAPPING: &str = "[[table]]\nsource = \"{db}.orders\"\nentity = \"order\"\n\
    [[table.target]]\ntable = \"orders\"\npartition_key = [\"id\"]\nrename = { amount = \"total\" }\nexclude_from_target = [\"legacy\"]\n\
    [[table.target]]\ntable = \"by_customer\"\npartition_key = [\"customer\"]\nclustering_key = [\"id desc\"]\n\
    exclude_from_target = [\"legacy\"]\n";
